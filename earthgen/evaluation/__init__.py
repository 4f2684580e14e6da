"""How good models and their worlds are: reconstruction, agreement with the condition, realism,
diversity, seams.

`evaluate.evaluate` measures backends and baselines on the held-out crops of a dataset,
`report.write_report` writes the JSON and the page. docs/guides/evaluation.md says what each number
means. `overlap`, `distances`, `geometry_features` and `patch` load no torch.
"""
