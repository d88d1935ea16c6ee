"""Fetch Metadata (W3C): which appends a browser sends without its user asking for them."""

from quart import Request


def append_refusal(request: Request) -> str:
    """Return why `request` may not append: another site's page or a prefetch sent it; "" if it may.

    Browsers set these headers, and no script can forge them. Other clients do not send them.
    """
    header = request.headers.get
    is_navigation = header("Sec-Fetch-Mode") == "navigate" and header("Sec-Fetch-Dest") == "document"
    if header("Sec-Fetch-Site") == "cross-site" and not is_navigation:
        return "A page of another site may link to this address, but not append on its own."
    if "prefetch" in header("Sec-Purpose", ""):
        return "Fetching ahead of need does not append. Open the address itself."
    return ""
