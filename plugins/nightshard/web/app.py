"""The app inside Airflow: a run as it goes on, its shards' logs and jobs, and the results."""

import asyncio
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Query, Request
from fastapi.responses import HTMLResponse, PlainTextResponse, RedirectResponse

from nightshard.clusters.errors import LoginError, TransportError
from nightshard.clusters.site import portal_link
from nightshard.core.task_states import RUN_ENDED, SHARD_TASK
from nightshard.web.api import api_router
from nightshard.web.clusters import Connections
from nightshard.web.lines import plain, to_html
from nightshard.web.looking import MAX_BYTES, TAIL, LogPiece, cancel_elements, look, read_log
from nightshard.web.pages import CONFLICT, SAFE, NotThereError, airflow_prefix, bare_app, page
from nightshard.web.results import results_router
from nightshard.web.runs import Airflow, Run, RunLook
from nightshard.web.shards import ShardTask, judge_shard
from nightshard.web.source import Source

DAG = "/dags/{dag_id}"
RUN = DAG + "/runs/{dag_run_id}"
SHARD = RUN + "/shards/{rank}"


Offset = Annotated[int, Query(ge=TAIL, description="Bytes known already; -1: the tail.")]
Limit = Annotated[int, Query(ge=1, le=MAX_BYTES)]
Before = Annotated[int | None, Query(ge=1, description="Read back from this byte.")]
Chosen = Annotated[int | None, Query(ge=1)]


def create_app(
    airflow: Airflow,
    may_read: Callable[..., Any],
    may_stop: Callable[..., Any],
    login: Callable[[Request], str],
    *,
    source: Source,
    may_see: Callable[..., Any],
) -> FastAPI:
    """Build the app.

    Args:
        airflow: how runs are looked up and clusters reached.
        may_read: FastAPI dependency that lets in only who may read the DAG ``dag_id`` of the path.
        may_stop: the same for who may end its tasks.
        login: address of the login page that leads back to a request.
        source: where scores and answers are read.
        may_see: the same for who may see them.
    """
    app = bare_app(login, inside_airflow=True)
    pages = _Pages(airflow, Connections(airflow.transport))
    guard = [Depends(may_read)]
    app.get(DAG + "/deployment", dependencies=guard)(pages.deployment)
    app.get(RUN, dependencies=guard, response_model=None)(pages.run)
    app.get(RUN + "/shards", dependencies=guard)(pages.shards)
    app.post(RUN + "/cancel", dependencies=[Depends(may_stop)])(pages.cancel)
    app.get(SHARD + "/log", dependencies=guard, response_model=None)(pages.log)
    app.get(SHARD + "/log.json", dependencies=guard)(pages.log_json)
    app.get(SHARD + "/log.txt", dependencies=guard, response_model=None)(pages.log_txt)
    app.get(SHARD + "/job", dependencies=guard, response_model=None)(pages.job)
    app.include_router(api_router(source, [Depends(may_see)]))
    app.include_router(results_router(source, [Depends(may_see)]))
    return app


class _Pages:
    def __init__(self, airflow: Airflow, connections: Connections) -> None:
        self.airflow = airflow
        self.connections = connections

    async def _run(self, dag_id: str, dag_run_id: str) -> Run:
        return await asyncio.to_thread(self.airflow.run, dag_id, dag_run_id)

    async def deployment(self) -> dict[str, str | None]:
        """The id of this installation, which the keys of its runs depend on."""
        return {"deployment": await asyncio.to_thread(self.airflow.deployment)}

    async def shards(self, dag_id: str, dag_run_id: str) -> dict[str, Any]:
        """All shards of a run: states, jobs, progress."""
        return (await self.connections.look(await self._run(dag_id, dag_run_id))).to_dict()

    async def run(self, request: Request, dag_id: str, dag_run_id: str) -> HTMLResponse:
        """The page of a run as it goes on."""
        run = await self._run(dag_id, dag_run_id)
        seen = (await self.connections.look(run)).to_dict()
        return page(
            request,
            "live.html.j2",
            run=run,
            seen=seen,
            over=run.state in RUN_ENDED,
            done=sum(one["done"] or 0 for one in seen["shards"]),
            rows=sum(one["rows"] for one in seen["shards"]),
            airflow=f"{airflow_prefix(request)}/dags/{run.dag_id}/runs/{run.dag_run_id}",
        )

    async def cancel(
        self, dag_id: str, dag_run_id: str, rank: Annotated[int | None, Query(ge=0)] = None
    ) -> dict[str, Any]:
        """Cancel what an ended run, or an ended shard of it, has left in Slurm.

        The triggers of its shards do that by themselves, unless the triggerer was down or the run
        ended in the middle of its submission.
        """
        run = await self._run(dag_id, dag_run_id)
        ended = run.state in RUN_ENDED if rank is None else run.shard(rank).over
        if not ended:
            raise HTTPException(CONFLICT, "Airflow has not ended it; mark it failed first.")
        if run.profile is None or run.layout is None:
            return {"cancelled": []}
        async with self.connections.to(run.profile) as transport:
            found = await look(transport, run.layout, rank)
            chosen = None if rank is None else set(judge_shard(run.shard(rank), found).alive)
            if chosen is not None:  # a job that it shares with a shard which goes on is left alone
                going = (judge_shard(one, found) for one in run.shards or () if not one.over)
                chosen = chosen.difference(*(one.alive for one in going))
            return {"cancelled": await cancel_elements(transport, found, chosen)}

    async def log_json(  # noqa: PLR0917 (FastAPI passes by keyword)
        self,
        dag_id: str,
        dag_run_id: str,
        rank: int,
        attempt: Chosen = None,
        offset: Offset = TAIL,
        limit: Limit = MAX_BYTES,
        before: Before = None,
        html: bool = False,
    ) -> dict[str, Any]:
        """A piece of a shard's log and the shard's state, for following."""
        run = await self._run(dag_id, dag_run_id)
        shard = run.shard(rank)
        seen = await self.connections.look(run, rank)
        chosen = _chosen(seen, shard, attempt)
        piece = await self._read(run, shard, chosen, offset, limit, before)
        return {
            "attempt": chosen,
            "path": str(shard.layout.attempt_log(rank, chosen)),
            **_piece_dict(piece, to_html if html else plain),
            "over": _over(seen, shard, chosen),
            "shard": seen.shard_dict(shard),
            "submitted_at": run.submitted_at,
            "complaint": seen.complaint,
        }

    async def log_txt(
        self, dag_id: str, dag_run_id: str, rank: int, attempt: Chosen = None
    ) -> PlainTextResponse:
        """The end of a shard's log as plain text."""
        answer = await self.log_json(dag_id, dag_run_id, rank, attempt)
        return PlainTextResponse(answer["lines"] + answer["rest"], headers=SAFE)

    async def log(
        self, request: Request, dag_id: str, dag_run_id: str, rank: int, attempt: Chosen = None
    ) -> HTMLResponse:
        """The page of a shard's log."""
        run = await self._run(dag_id, dag_run_id)
        shard = run.shard(rank)
        seen = await self.connections.look(run, rank)
        chosen = _chosen(seen, shard, attempt)
        trouble = seen.complaint
        piece = None
        try:
            piece = await self._read(run, shard, chosen)
        except (TransportError, LoginError) as error:
            trouble = str(error)
        state = seen.shard_dict(shard)
        path = str(shard.layout.attempt_log(rank, chosen))
        links = run.profile.links if run.profile else None
        return page(
            request,
            "log.html.j2",
            run=run,
            shard=shard,
            state=state,
            attempt=chosen,
            trouble=trouble,
            paths=_paths(shard, chosen),
            log=_piece_dict(piece, to_html),
            over=_over(seen, shard, chosen),
            file_link=portal_link(links.file, path=path) if links and links.file else None,
            job_links={
                one["attempt"]: portal_link(links.job, job_id=one["job_id"])
                for one in state["attempts"]
                if links and links.job and one["job_id"]
            },
            airflow=f"{airflow_prefix(request)}/dags/{run.dag_id}/runs/{run.dag_run_id}",
            task=f"/tasks/{SHARD_TASK}/mapped/{rank}",
        )

    async def job(self, dag_id: str, dag_run_id: str, rank: int) -> RedirectResponse:
        """Lead to the site's page of the shard's latest job, else to what is known of it here."""
        run = await self._run(dag_id, dag_run_id)
        run.shard(rank)
        links = run.profile.links if run.profile else None
        if links is None or links.job is None:
            return RedirectResponse("log#job")
        seen = await self.connections.look(run, rank)
        found = seen.looks.get(rank)
        if found is None or found.status is None or found.status.job_id is None:
            return RedirectResponse("log#job")
        return RedirectResponse(portal_link(links.job, job_id=found.status.job_id))

    async def _read(  # noqa: PLR0917 (which piece of which log)
        self,
        run: Run,
        shard: ShardTask,
        attempt: int,
        offset: int = TAIL,
        limit: int = MAX_BYTES,
        before: int | None = None,
    ) -> LogPiece | None:
        assert run.profile is not None  # noqa: S101 (a run with shards has its cluster)
        path = shard.layout.attempt_log(shard.rank, attempt)
        async with self.connections.to(run.profile) as transport:
            return await read_log(transport, path, offset, limit, before)


def _chosen(look: RunLook, shard: ShardTask, attempt: int | None) -> int:
    """Return the attempt to show: the latest that has a job, unless another is asked for.

    Raises:
        NotThereError: there is no such attempt.
    """
    found = look.looks.get(shard.rank)
    if found is None:
        return attempt or 1
    known = [one.attempt for one in found.attempts] or [1]
    if attempt is not None and attempt not in known:
        raise NotThereError(
            f"Shard {shard.number} has no attempt {attempt}; its attempts are "
            f"{', '.join(map(str, known))}."
        )
    return attempt or found.shown


def _over(look: RunLook, shard: ShardTask, attempt: int) -> bool:
    """Whether nothing more will be written to an attempt's log."""
    found = look.looks.get(shard.rank)
    if found is None:
        return False
    return attempt < found.shown or found.final or bool(found.status and found.status.final)


def _piece_dict(piece: LogPiece | None, shown: Callable[[str], str]) -> dict[str, Any]:
    lines, rest = (piece.piece.lines, piece.piece.rest) if piece else (b"", b"")
    return {
        "exists": piece is not None,
        "more": piece is not None and piece.more,
        "start": piece.start if piece else 0,
        "offset": piece.next_offset if piece else 0,
        "size": piece.size if piece else 0,
        "lines": shown(lines.decode(errors="replace")),
        "rest": shown(rest.decode(errors="replace")),
    }


def _paths(shard: ShardTask, attempt: int) -> dict[str, PurePosixPath]:
    layout = shard.layout
    return {
        "Log": layout.attempt_log(shard.rank, attempt),
        "Shard's folder": layout.shard(shard.rank),
        "Answers": layout.output_file(shard.rank, shard.world_size),
        "Run": layout.run,
    }
