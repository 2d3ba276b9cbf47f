"""The advisors' page: read why, edit, approve, reject, undo."""
