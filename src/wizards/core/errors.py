"""Why the roster turns a request away."""


class RosterError(Exception):
    """A request that the roster turned away."""


class RosterFullError(RosterError):
    """The list holds as many names as it may. Nothing was appended."""


class RosterBusyError(RosterError):
    """Too many requests are waiting. Nothing was appended."""


class RosterUnavailableError(RosterError):
    """The store failed. The name may have been appended."""
