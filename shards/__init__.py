"""The store. Imported first of all packages: STARTED is when the process began, by `time.monotonic`."""

import time

STARTED = time.monotonic()
