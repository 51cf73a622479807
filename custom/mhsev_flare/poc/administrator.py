"""The administrator's connection to a FLARE server, through FLARE's own API."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

FINISHED = "FINISHED"


class NoServerError(RuntimeError):
    """The server did not answer."""


class Administrator:
    """What an administrator asks of a server; a context manager.

    Args:
        kit: the administrator's startup kit.
        name: of the administrator.
        seconds: how long to try to connect.

    Raises:
        NoServerError: if nobody answers.
    """

    def __init__(self, kit: Path, name: str, seconds: float = 10.0) -> None:
        from nvflare.fuel.flare_api.flare_api import new_secure_session

        with _quiet(), _as_no_server():
            self._session = new_secure_session(name, str(kit), timeout=seconds)

    def __enter__(self) -> Administrator:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection."""
        # A session that the server has dropped complains, and is closed all the same.
        with _quiet(), contextlib.suppress(Exception):
            self._session.close()

    def sites(self) -> list[str]:
        """Sites that are registered at the server, sorted."""
        with _quiet(), _as_no_server():
            return sorted(client.name for client in self._session.get_connected_client_list())

    def submit(self, job: Path) -> str:
        """Submit the job in a folder; its id."""
        # A server that was started again since the login takes an old session up with any command but an upload,
        # which it answers with an AssertionError of its own; so a small question goes first.
        self.sites()
        with _quiet(), _as_no_server():
            return str(self._session.submit_job(str(job.resolve())))

    def job(self, job_id: str) -> dict[str, Any]:
        """What the server says of a job: ``status``, ``job_deploy_detail`` and so on."""
        with _quiet(), _as_no_server():
            return dict(self._session.get_job_meta(job_id))

    def jobs(self) -> list[dict[str, Any]]:
        """All jobs of the server, the newest first."""
        with _quiet(), _as_no_server():
            return list(self._session.list_jobs(detailed=True, reverse=True))

    def download(self, job_id: str, folder: Path) -> Path:
        """Fetch what a job left at the server into ``folder``; returns the folder of the job in it."""
        folder.mkdir(parents=True, exist_ok=True)
        with _quiet(), _as_no_server():
            return Path(self._session.download_job_result(job_id, str(folder)))

    def abort(self, job_id: str) -> None:
        """End a job."""
        with _quiet(), _as_no_server():
            self._session.abort_job(job_id)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """FLARE's API prints its own account of a connection."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


@contextlib.contextmanager
def _as_no_server() -> Iterator[None]:
    from nvflare.fuel.flare_api.api_spec import NoConnection, NoReply, SessionClosed, SessionExpired

    try:
        yield
    except (NoConnection, NoReply, SessionClosed, SessionExpired, TimeoutError) as error:
        raise NoServerError(f"the FLARE server does not answer ({type(error).__name__})") from error
