"""What the site policy adds to the scripts that start a kit: its Python, its digest, logs without exception texts.

FLARE's scripts run whatever ``python3`` comes first on PATH, which in a hospital is seldom the one that has the study's
packages; and FLARE 2.9 starts a plain kit whatever was changed in it.
"""

from __future__ import annotations

import re

PYTHON_FILE = "python"
"""In a kit's ``local`` folder: one line, the Python that runs it."""

START_SCRIPTS = ("sub_start.sh", "fl_admin.sh")
"""The scripts of a kit's ``startup`` folder that run Python."""

ENVIRONMENT = """
# From here to the empty line: mhsev_flare.provision.SitePolicyBuilder.
export NVFLARE_SECURE_LOGGING=1
MHSEV_PYTHON="${MHSEV_PYTHON:-$(head -n 1 "$DIR/../local/python" 2>/dev/null)}"
MHSEV_PYTHON="${MHSEV_PYTHON:-python3}"
if ! command -v "$MHSEV_PYTHON" > /dev/null; then
  echo "There is no Python at $MHSEV_PYTHON; name the one that has mhsev in MHSEV_PYTHON or in local/python." >&2
  exit 1
fi
if [ "${MHSEV_KIT_CHECK:-on}" != off ]; then
  "$MHSEV_PYTHON" -m mhsev_flare.kit_digest "$DIR/.." || exit 1
fi
"""

_FOLDER = re.compile(r"^DIR=.*$", re.MULTILINE)
_PYTHON = re.compile(r"\bpython3(?= -)")


def with_site_environment(script: str) -> str:
    """The script with :data:`ENVIRONMENT` behind its first lines, and every call of ``python3`` turned to that Python.

    Raises:
        ValueError: where the script is not of the form that FLARE 2.9 writes.
    """
    changed, n_calls = _PYTHON.subn('"$MHSEV_PYTHON"', script)
    folder = _FOLDER.search(changed)
    if folder is None or not n_calls:
        raise ValueError(
            "a start script of this FLARE has no line `DIR=` or no call of python3, so that the site policy cannot "
            "name its Python; use nvflare 2.9"
        )
    return changed[: folder.end()] + "\n" + ENVIRONMENT + changed[folder.end() :]
