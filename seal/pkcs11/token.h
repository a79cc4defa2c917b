// One use of a token: load the module, log in, find the AES key with that label,
// encrypt or decrypt by AES-GCM with a tag of 128 bits, and let go of everything.
typedef struct {
	const char *module, *token, *key;
	unsigned char *pin;
	unsigned long pin_length;
	int decrypt;
	unsigned char *iv, *aad, *in, *out;
	unsigned long iv_length, aad_length, in_length, out_length;
	const char *step; // what failed
	char reason[256]; // of a module that does not load
} token_use;

// token_run returns 0, or the CKR_ code of the step that failed.
unsigned long token_run(token_use *use);
