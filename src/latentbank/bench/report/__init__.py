"""What is made of records: folders of results, comparisons, figures, and the HTML page."""
