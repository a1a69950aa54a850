"""Names the fields in which a conversion from another format writes notes, which the data check reports as findings."""

from __future__ import annotations

FAULT = "conversion_fault"  # why an entry could not be converted: the file, the line, what was expected and what was found
DROPPED = "conversion_dropped"  # which values of an object's label are left out, because only the box is used
