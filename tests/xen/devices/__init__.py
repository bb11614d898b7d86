"""Users' own device files, as the real-Xen tests give them to ``-device FILE.py:Class``."""
