"""Knowledge bases: invented worlds of triples, and triples as question-answer data."""
