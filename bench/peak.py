"""peak.py COMMAND...: run it, then print its CPU in ms and its peak resident set in KiB.

Imports very little.
"""

import os
import sys

if __name__ == "__main__":
    pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
    _, status, usage = os.wait4(pid, 0)
    print(round((usage.ru_utime + usage.ru_stime) * 1000), usage.ru_maxrss)
    sys.exit(os.waitstatus_to_exitcode(status))
