"""The fields in which a conversion from another format leaves notes, which the data check reports as findings."""

from __future__ import annotations

FAULT = "conversion_fault"  # of an entry that could not be converted: the file and the line, what was expected and what was found
DROPPED = "conversion_dropped"  # of an object: what its label has beside the box, and is left out
