"""Sources of data sets by kind: experiment -> `Dataset`, split but not yet scaled."""
