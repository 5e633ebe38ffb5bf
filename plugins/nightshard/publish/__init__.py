"""What others get to see of a run: answers, scores and a card that explains them."""
