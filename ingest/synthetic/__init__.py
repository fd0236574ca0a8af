"""A made-up atmosphere served as genuine GRIB2 from a local mirror: tests and the demo."""
