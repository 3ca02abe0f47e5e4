"""A plugin of advloss: a discriminator on Haar bands, and a loss with smoothed labels."""
