"""What of gossipsess.auto runs in the tests' own process: its parts, and not its hooks.

To import any of it imports the package, and that sets the hooks: all tests that come later would have the frameworks
with our sessions in place of their own.
"""

import os

os.environ["GOSSIPSESS_AUTO"] = "off"
from gossipsess.auto.finder import AfterImport
from gossipsess.auto.hooks import numbers

del os.environ["GOSSIPSESS_AUTO"]

__all__ = ["AfterImport", "numbers"]
