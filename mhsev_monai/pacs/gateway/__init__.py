"""The process between PACS and pipeline: receives series, has them graded, and sends the results back."""
