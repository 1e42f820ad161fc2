"""Three methods that prove the contract: one file each, and no other file is edited for them."""
