"""What was used last."""

import threading
from collections import OrderedDict


class Recent:
    """The values used last, by key.

    Args:
        limit: Number of values to keep. The one that was not used for longest is dropped first.
    """

    def __init__(self, limit=64):
        self._limit, self._lock = limit, threading.Lock()
        self._values: OrderedDict = OrderedDict()

    def __contains__(self, key):
        return key in self._values

    def find(self, key, make):
        """The value of a key; `make()` where there is none yet, or it is None."""
        with self._lock:
            value = self._values.pop(key, None) or make()
            self._values[key] = value
            if len(self._values) > self._limit:
                self._values.popitem(last=False)
        return value

    def drop(self, key):
        """Forget the value of a key."""
        with self._lock:
            self._values.pop(key, None)
