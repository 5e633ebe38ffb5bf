"""One module a migration, named rNNNN_what_it_does."""
