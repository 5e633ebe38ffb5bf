"""What Nightshard adds to Airflow's own pages."""

from airflow.plugins_manager import AirflowPlugin

from nightshard.orchestration.lazy_app import LazyApp
from nightshard.orchestration.links import PAGES


class NightshardPlugin(AirflowPlugin):
    """Serves a shard's remote log; the buttons on its task lead there."""

    name = "nightshard"
    fastapi_apps = [{"app": LazyApp(), "url_prefix": PAGES, "name": "Nightshard"}]  # noqa: RUF012
