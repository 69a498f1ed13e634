"""What this machine offers for reading fast, what is missing, what that costs, and what to do.

Nothing is assumed from version numbers where it can be tried: io_uring reads a file, a small buffer
pool shows whether it gets huge pages, files are opened with O_DIRECT.
"""

from .examine import Examination, examine
from .finding import Finding, Status

__all__ = ["Examination", "Finding", "Status", "examine"]
