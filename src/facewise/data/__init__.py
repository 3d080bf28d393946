"""Where pictures and their labels are: folders, tars, lists, and the data sets made of them."""
