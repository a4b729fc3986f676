"""Text as data: corpora, tokenizers, rows, and the predictors that count."""
