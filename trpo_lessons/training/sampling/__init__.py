"""How samples are collected on all cores: paths, games and vines, by groups of environments."""
