"""Where data sets come from: one file a kind of source; each function makes a
`Dataset`, split but not yet scaled."""
