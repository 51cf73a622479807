"""Quality control of a site's scans: measures, outliers, and one page that shows them at a glance."""

from mhsev_monai.qc.excluded import Excluded
from mhsev_monai.qc.site import QCSummary, SiteQC, check_site, write_qc

__all__ = ["Excluded", "QCSummary", "SiteQC", "check_site", "write_qc"]
