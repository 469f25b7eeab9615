"""Who checks the labels: expert classifiers, FERAnno, and the vote among them."""
