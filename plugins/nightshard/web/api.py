"""The result pages' data as JSON, with an OpenAPI description."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Query, Request
from fastapi.openapi.utils import get_openapi
from fastapi.params import Depends

from nightshard import __version__
from nightshard.results.board import ACCURACY, Board, Curve, arrange, curves, read_board
from nightshard.results.read import list_runs
from nightshard.results.records import RunSummary, json_form
from nightshard.results.samples import Page
from nightshard.results.scaling import Scaling, read_scaling
from nightshard.web.asked import (
    AskedBoard,
    AskedSamples,
    Names,
    RunKey,
    RunQuery,
    Size,
    Text,
)
from nightshard.web.source import Source, there

API = "/api"


@dataclass
class Trouble:
    """What went wrong, in one sentence."""

    detail: str


def api_router(source: Source, guard: Sequence[Depends]) -> APIRouter:
    """Make the routes.

    Args:
        source: where they read.
        guard: dependencies that let in only who may see results.
    """
    refused: dict[int | str, dict[str, Any]] = {
        status: {"model": Trouble} for status in (401, 403, 404, 422, 502)
    }
    router = APIRouter(prefix=API, dependencies=list(guard), responses=refused)

    @router.get("/leaderboard")
    def leaderboard(asked: AskedBoard) -> Board:
        """Checkpoints beside benchmarks: the latest score of each."""
        return arrange(read_board(source.engine, asked.metric), asked.view)

    @router.get("/curves")
    def curves_of(family: Text, benchmark: Names = [], metric: Text = ACCURACY) -> list[Curve]:  # noqa: B006 (FastAPI copies it)
        """A metric over the training steps of a family of checkpoints."""
        return curves(read_board(source.engine, metric), family, benchmark)

    @router.get("/runs")
    def runs(model: Text = "", limit: Size = 100) -> list[RunSummary]:
        """Runs, scored or not, the newest first."""
        return list_runs(source.engine, model or None, limit)

    @router.get("/runs/{run_key}")
    def run(run_key: RunKey) -> dict[str, Any]:
        """One run: what was asked, its attempts, its scores, what a gate said."""
        return dict(json_form(asdict(source.run(run_key))))

    @router.get("/runs/{run_key}/samples")
    def samples(
        run_key: RunKey,
        asked: AskedSamples,
        limit: Annotated[int, Query(ge=1, le=200)] = 50,
    ) -> Page:
        """A page of a run's answers, with their verdicts."""
        offset = (asked.page - 1) * limit
        with there():
            return source.samples.page(
                run_key, asked.filter, beside=asked.beside, offset=offset, limit=limit
            )

    @router.get("/runs/{run_key}/samples/{request_id}")
    def sample(run_key: RunKey, request_id: str) -> dict[str, Any]:
        """One answer with its question, its verdict and the gold answer."""
        with there():
            return dict(json_form(source.samples.one(run_key, request_id)))

    @router.get("/compare")
    def compare(first: RunQuery, second: RunQuery) -> list[dict[str, Any]]:
        """How a second run differs from a first, paired by problem."""
        return [one.to_dict() for one in source.compare(first, second)]

    @router.get("/scaling")
    def scaling() -> list[Scaling]:
        """Time and GPU seconds of evaluations that ran with several numbers of shards."""
        return read_scaling(source.engine)

    @router.get("/openapi.json", include_in_schema=False)
    def description(request: Request) -> dict[str, Any]:
        """The description of these routes."""
        app: FastAPI = request.app
        return get_openapi(
            title="Nightshard",
            version=__version__,
            description="Scores and answers of evaluated checkpoints.",
            routes=router.routes,
            servers=[{"url": str(request.scope.get("root_path", "")) or "/"}],
            separate_input_output_schemas=app.separate_input_output_schemas,
        )

    return router
