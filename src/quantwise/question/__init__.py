"""The question: what is asked for, the candidates it names, and the frozen form that everything else is asked of."""
