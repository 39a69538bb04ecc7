"""The package of an application, of which the server's configuration uses parts."""
