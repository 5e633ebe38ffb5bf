"""What Nightshard adds to Airflow's own pages."""

from airflow.plugins_manager import AirflowPlugin

from nightshard.orchestration.lazy_app import LazyApp
from nightshard.orchestration.links import PAGES, views


class NightshardPlugin(AirflowPlugin):
    """Serves scores, answers and shards' remote logs, and shows them in Airflow's navigation."""

    name = "nightshard"
    fastapi_apps = [{"app": LazyApp(), "url_prefix": PAGES, "name": "Nightshard"}]  # noqa: RUF012
    external_views = views()
