"""The training on Spark: points stay where they are, figures come to the driver."""
