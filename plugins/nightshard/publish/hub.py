"""Uploading a published folder to the Hugging Face Hub, as one dataset a run."""

import email.utils
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import httpx2
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils.tqdm import disable_progress_bars

from nightshard.core.errors import UserError
from nightshard.publish.account import HubAccount

log = logging.getLogger(__name__)

TRIES = 6
FIRST_WAIT_S = 2.0
LONGEST_WAIT_S = 300.0
ATTRIBUTES = ".gitattributes"
"""Made by the Hub itself in each new dataset."""

_AGAIN = frozenset((408, 409, 412, 425, 429, 500, 502, 503, 504))
"""409 and 412 say that somebody else has written to the repository in between."""
_REFUSED = frozenset((401, 403))


def upload(
    folder: Path,
    account: HubAccount,
    name: str,
    *,
    wait: Callable[[float], None] = time.sleep,
) -> str:
    """Make a dataset hold exactly what a folder holds, in one commit.

    The Hub knows files by their content: what an attempt that was cut off has brought there is not
    sent again, and where everything is there already no commit is made.

    Args:
        folder: as :func:`nightshard.publish.folder.write_folder` wrote it.
        account: where.
        name: of the dataset in the account's namespace.
        wait: takes seconds; for tests.

    Returns:
        The dataset's address.

    Raises:
        UserError: the Hub refuses the token or the request.
        HfHubHTTPError: it is still in trouble after the last of ``TRIES``.
        httpx2.TransportError: it could not be reached then.
        RuntimeError: one of these two while a file was sent.
    """
    disable_progress_bars()
    api = HfApi(endpoint=account.endpoint, token=account.token, library_name="nightshard")
    repository = f"{account.namespace}/{name}"
    pause = FIRST_WAIT_S
    for number in range(1, TRIES + 1):
        try:
            return _upload_once(api, folder, repository, private=account.private)
        except (HfHubHTTPError, httpx2.TransportError, RuntimeError) as error:
            cause = _cause(error)
            if cause is None:
                raise
            response = cause.response if isinstance(cause, HfHubHTTPError) else None
            if response is not None and response.status_code not in _AGAIN:
                raise UserError(_refusal(response.status_code, repository, cause)) from None
            if number == TRIES:
                raise
        if response is None:
            asked, said = None, "the Hub could not be reached"
        else:
            asked, said = _retry_after(response), f"the Hub answered {response.status_code}"
        seconds = min(asked if asked is not None else pause, LONGEST_WAIT_S)
        log.warning("%s: %s, trying again in %.0f s", repository, said, seconds)
        wait(seconds)
        pause = min(pause * 2, LONGEST_WAIT_S)
    raise AssertionError("unreachable")


def _upload_once(api: HfApi, folder: Path, repository: str, *, private: bool) -> str:
    api.create_repo(repository, repo_type="dataset", private=private, exist_ok=True)
    head = api.dataset_info(repository)
    files = {
        path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()
    }
    there = {one.rfilename for one in head.siblings or ()} - {ATTRIBUTES}
    operations: list[CommitOperationAdd | CommitOperationDelete] = [
        CommitOperationAdd(path_in_repo=name, path_or_fileobj=path)
        for name, path in sorted(files.items())
    ]
    operations += [CommitOperationDelete(path_in_repo=name) for name in sorted(there - set(files))]
    api.create_commit(
        repository,
        operations,
        repo_type="dataset",
        commit_message="Answers and scores",
        parent_commit=head.sha,  # else somebody else's commit of this moment would be mixed in
    )
    return f"{api.endpoint}/datasets/{repository}"


def _cause(error: BaseException | None) -> HfHubHTTPError | httpx2.TransportError | None:
    """Return what went wrong at the wire; the client wraps it where it sends files in threads."""
    while error is not None and not isinstance(error, HfHubHTTPError | httpx2.TransportError):
        error = error.__cause__
    return error


def _refusal(status: int, repository: str, error: Exception) -> str:
    if status in _REFUSED:
        return (
            f"The Hub refuses the token for {repository} ({status}): put one that may write to "
            "this namespace into the connection nightshard_hub."
        )
    reason = " ".join(str(getattr(error, "server_message", None) or error).split())
    return f"The Hub refuses to take {repository} ({status}): {reason}"


def _retry_after(response: httpx2.Response) -> float | None:
    """Read the header Retry-After, seconds or a date (RFC 9110, section 10.2.3)."""
    value = response.headers.get("retry-after", "")
    if value.isdigit():
        return float(value)
    try:
        when = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (when - datetime.now(UTC)).total_seconds())
