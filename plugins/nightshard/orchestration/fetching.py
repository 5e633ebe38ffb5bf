"""Who fetches a model that is not on the cluster yet."""

import asyncio
from pathlib import Path

from nightshard.clusters.model_upload import upload_model
from nightshard.clusters.models import Fetch, download
from nightshard.clusters.profile import ClusterProfile
from nightshard.clusters.transport import Transport
from nightshard.core.errors import UserError
from nightshard.orchestration.connections import hub_client, open_transport
from nightshard.orchestration.steps import current_settings


def fetcher(transport: Transport, profile: ClusterProfile) -> Fetch | None:
    """Return what fetches a model as the profile says; None leaves it to the login node.

    Args:
        transport: connection to the login node.
        profile: the cluster.
    """
    match profile.models.download:
        case "transfer":
            through = {"ssh_conn_id": str(profile.models.transfer_conn_id)}
            node = profile.model_copy(update=through)

            async def by_transfer(model: str, revision: str) -> str:
                async with open_transport(node) as other:
                    return await download(other, node, model, revision)

            return by_transfer
        case "airflow":

            async def by_airflow(model: str, revision: str) -> str:
                folder = await asyncio.to_thread(_snapshot, model, revision)
                return await upload_model(transport, profile, model, folder)

            return by_airflow
        case _:
            return None


def _snapshot(model: str, revision: str) -> Path:
    """Fetch a model to this machine; return its folder, which is named by the commit.

    Raises:
        UserError: the Hub does not give it.
    """
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError

    from nightshard.checkpoints.hub import first_words

    api, cache = hub_client(), current_settings().state / "hub"
    try:
        commit = api.model_info(model, revision=revision).sha
        return Path(api.snapshot_download(model, revision=commit, cache_dir=cache))
    except (HfHubHTTPError, httpx2.HTTPError, OSError) as error:
        raise UserError(
            f"The model {model} at revision {revision} could not be fetched: {first_words(error)}"
        ) from None
