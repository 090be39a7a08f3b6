"""Ratios against peers on the same work, in the same run."""
