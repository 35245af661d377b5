"""
`cmdrdata dashboard`: a page to look at, read-only, from the ledgers of this host.

- `command`: the options, and how it begins and ends
- `server`: who may read which path over HTTP, and the headers
- `answers`: what the page is told, as JSON
- `over_time`: usage by period
- `report`: the same in one file, for `cmdrdata usage --html`
- `page/`: HTML, style and scripts, as they are sent; `page/uplot/` is the library that plots
"""

from __future__ import annotations

from importlib.resources import files

PAGE = files(__name__) / "page"
"""The folder of what is sent to a browser."""
