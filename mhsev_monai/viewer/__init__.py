"""One scan in a local browser: its image, its map, its brain mask and what the model found in it."""

from mhsev_monai.viewer.pages import ServedFile, viewer_files
from mhsev_monai.viewer.server import ViewerServer

__all__ = ["ServedFile", "ViewerServer", "viewer_files"]
