"""Why a recording and a port part: measured where possible, else tried, else unsaid."""
