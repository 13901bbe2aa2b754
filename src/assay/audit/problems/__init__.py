"""One file per problem class."""
