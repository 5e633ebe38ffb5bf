"""The result pages: leaderboard, curves, runs, answers, comparisons, scaling."""

from collections.abc import Callable, Sequence
from dataclasses import asdict

from fastapi import APIRouter, Request, Response
from fastapi.params import Depends
from fastapi.responses import HTMLResponse

from nightshard.clusters.slurm import ShardState
from nightshard.publish.card import command
from nightshard.results.board import ACCURACY, arrange, curves, families, metric_names, read_board
from nightshard.results.read import list_runs
from nightshard.results.records import gpu_time, json_form
from nightshard.results.scaling import read_scaling
from nightshard.web.asked import (
    ROWS,
    AskedBoard,
    AskedSamples,
    MaybeRun,
    Names,
    PageNumber,
    RunKey,
    Text,
    query,
)
from nightshard.web.formatted import code_style, formatted, visible
from nightshard.web.pages import SAFE, NotThereError, airflow_prefix, page
from nightshard.web.source import Source, there
from nightshard.web.timeline import timeline

RUNS_SHOWN = 100
CHOICES = 500
"""Runs that a form suggests."""

_IMAGE = {
    **SAFE,
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
    "Content-Type": "image/svg+xml",
}


def results_router(source: Source, guard: Sequence[Depends]) -> APIRouter:
    """Make the routes.

    Args:
        source: where they read.
        guard: dependencies that let in only who may see results.
    """
    pages = _ResultPages(source)
    router = APIRouter(dependencies=list(guard), include_in_schema=False)
    routes: dict[str, Callable[..., Response]] = {
        "/": pages.leaderboard,
        "/curves": pages.curves,
        "/curves.svg": pages.curves_svg,
        "/runs": pages.runs,
        "/runs/{run_key}": pages.run,
        "/runs/{run_key}/samples": pages.samples,
        "/runs/{run_key}/samples/{request_id}": pages.sample,
        "/compare": pages.compare,
        "/scaling": pages.scaling,
        "/scaling.svg": pages.scaling_svg,
    }
    for path, endpoint in routes.items():
        router.get(path, response_model=None)(endpoint)
    return router


class _ResultPages:
    # Plain functions, which FastAPI calls in threads: database and files block.

    def __init__(self, source: Source) -> None:
        self.source = source

    def leaderboard(self, request: Request, asked: AskedBoard) -> HTMLResponse:
        whole = read_board(self.source.engine, asked.metric)
        board = arrange(whole, asked.view)
        return page(
            request,
            "leaderboard.html.j2",
            board=board,
            asked=asked,
            names=whole.benchmarks,
            metrics=metric_names(self.source.engine),
            families=set(families(whole)),
            pages=-(-board.total // asked.view.size),
        )

    def curves(
        self,
        request: Request,
        family: Text = "",
        benchmark: Names = [],  # noqa: B006 (FastAPI copies it)
        metric: Text = ACCURACY,
    ) -> HTMLResponse:
        board = read_board(self.source.engine, metric)
        known = families(board)
        chosen = family or next(iter(known), "")
        asked = query({"family": chosen, "benchmark": benchmark, "metric": metric}, {})
        return page(
            request,
            "curves.html.j2",
            family=chosen,
            families=known,
            names=board.benchmarks,
            chosen=benchmark,
            metric=metric,
            metrics=metric_names(self.source.engine),
            curves=curves(board, chosen, benchmark),
            asked=asked,
        )

    def curves_svg(
        self,
        family: Text,
        benchmark: Names = [],  # noqa: B006 (FastAPI copies it)
        metric: Text = ACCURACY,
        dark: bool = False,
    ) -> Response:
        from nightshard.web.plots import plot_curves  # noqa: PLC0415 (half a second, for this only)

        found = curves(read_board(self.source.engine, metric), family, benchmark)
        return Response(plot_curves(found, metric, dark=dark), headers=_IMAGE)

    def runs(self, request: Request, model: Text = "") -> HTMLResponse:
        found = list_runs(self.source.engine, model or None, RUNS_SHOWN)
        return page(request, "runs.html.j2", runs=found, model=model, shown=RUNS_SHOWN)

    def run(self, request: Request, run_key: RunKey) -> HTMLResponse:
        run = self.source.run(run_key)
        prefix = airflow_prefix(request)
        linked = request.app.state.inside_airflow and run.dag_id and run.dag_run_id
        return page(
            request,
            "run.html.j2",
            run=run,
            timeline=timeline(run),
            spent=gpu_time(run.attempts),
            answers=sum(one.rows or 0 for one in run.shards),
            energy=sum(one.energy_j or 0 for one in run.shards),
            failures=[one for one in run.attempts if one.state != ShardState.ENDED_WELL],
            command=command(run.params) if run.params and run.params.get("tasks") else None,
            airflow=f"{prefix}/dags/{run.dag_id}/runs/{run.dag_run_id}" if linked else None,
            spec=json_form(run.spec) if run.spec else None,
            params=json_form(run.params) if run.params else None,
        )

    def samples(self, request: Request, run_key: RunKey, asked: AskedSamples) -> HTMLResponse:
        with there():
            found = self.source.samples.page(
                run_key,
                asked.filter,
                beside=asked.beside,
                offset=(asked.page - 1) * ROWS,
                limit=ROWS,
            )
        return page(
            request,
            "samples.html.j2",
            run_key=run_key,
            asked=asked,
            found=found,
            visible=visible,
            pages=-(-found.total // ROWS),
            others=self._keys(),
        )

    def sample(
        self, request: Request, run_key: RunKey, request_id: str, beside: MaybeRun = ""
    ) -> HTMLResponse:
        with there():
            sample = self.source.samples.one(run_key, request_id)
            other = None
            if beside:
                found = self.source.samples.counterpart(beside, sample)
                other = self.source.samples.one(beside, found) if found else None
        return page(
            request,
            "sample.html.j2",
            run_key=run_key,
            sample=sample,
            beside=beside,
            other=other,
            formatted=formatted,
            visible=visible,
            code_style=code_style(),
        )

    def compare(
        self, request: Request, first: MaybeRun = "", second: MaybeRun = ""
    ) -> HTMLResponse:
        found = self.source.compare(first, second) if first and second else None
        return page(
            request,
            "compare.html.j2",
            first=first,
            second=second,
            runs=list_runs(self.source.engine, None, CHOICES),
            rows=[asdict(one) | {"verdict": one.verdict} for one in found or ()],
            asked=found is not None,
        )

    def scaling(self, request: Request) -> HTMLResponse:
        return page(request, "scaling.html.j2", groups=read_scaling(self.source.engine))

    def scaling_svg(self, number: PageNumber, dark: bool = False) -> Response:
        from nightshard.web.plots import plot_scaling  # noqa: PLC0415 (half a second)

        groups = read_scaling(self.source.engine)
        if number > len(groups):
            raise NotThereError(f"There are {len(groups)} evaluations with several shard counts.")
        return Response(plot_scaling(groups[number - 1], dark=dark), headers=_IMAGE)

    def _keys(self) -> list[str]:
        return [one.run_key for one in list_runs(self.source.engine, None, CHOICES)]
