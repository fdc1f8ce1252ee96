"""peak.py COMMAND...: run it, then print its peak resident set in KiB. Imports very little."""

import os
import sys

if __name__ == "__main__":
    pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
    _, status, usage = os.wait4(pid, 0)
    print(usage.ru_maxrss)
    sys.exit(os.waitstatus_to_exitcode(status))
