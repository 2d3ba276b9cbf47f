"""The published tables where BI tools live, other than files.

Import it where it is needed: its driver is an extra.
"""

from ml.settings import UserError

try:
    import psycopg as psycopg
except ImportError:
    raise UserError(
        "PUBLISH_POSTGRES_URL needs a driver that is not installed: "
        "`pip install '.[postgres]'`."
    ) from None
