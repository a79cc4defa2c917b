//go:build pkcs11

#include "token.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

// PKCS #11 v2.40, as far as it is used here. CK_ULONG is unsigned long, and on
// Linux no structure is packed.
typedef unsigned long ck;
typedef struct { ck type; void *value; ck length; } attribute;
typedef struct { ck type; void *parameter; ck length; } mechanism;
typedef struct { unsigned char *iv; ck iv_length, iv_bits; unsigned char *aad; ck aad_length, tag_bits; } gcm;

// CK_FUNCTION_LIST: after the version, pointers in the order of section 5.
typedef struct { unsigned char version[2]; void *f[68]; } functions;
enum {
	initialize = 0, finalize = 1, get_slot_list = 4, get_token_info = 6, open_session = 12, close_session = 13,
	login = 18, find_init = 26, find = 27, find_final = 28, encrypt_init = 29, encrypt = 30, decrypt_init = 33, decrypt = 34,
};
#define CALL(n, ...) ((ck (*)())list->f[n])(__VA_ARGS__)

enum {
	ok = 0, general_error = 5, token_not_present = 0xe0, already_logged_in = 0x100, key_handle_invalid = 0x60,
	serial_session = 4, user = 1, aes_gcm = 0x1087,
	attribute_class = 0, attribute_label = 3, attribute_key_type = 0x100, secret_key = 4, aes = 0x1f,
};

// has_label compares a CK_TOKEN_INFO's label, 32 bytes padded with blanks.
static int has_label(const char *info, const char *label) {
	size_t n = strlen(label);
	if (n > 32 || memcmp(info, label, n) != 0) return 0;
	for (; n < 32; n++) if (info[n] != ' ') return 0;
	return 1;
}

static ck find_slot(functions *list, token_use *use, ck *slot) {
	ck slots[64], n = 64;
	ck err = CALL(get_slot_list, (unsigned char)1, slots, &n);
	if (err != ok) return err;
	for (ck i = 0; i < n; i++) {
		char info[512]; // CK_TOKEN_INFO has some 200 bytes
		if (CALL(get_token_info, slots[i], info) == ok && has_label(info, use->token)) {
			*slot = slots[i];
			return ok;
		}
	}
	return token_not_present;
}

static ck find_key(functions *list, token_use *use, ck session, ck *key) {
	ck class = secret_key, type = aes, found = 0;
	attribute want[] = {
		{attribute_class, &class, sizeof class}, {attribute_key_type, &type, sizeof type},
		{attribute_label, (void *)use->key, strlen(use->key)},
	};
	ck err = CALL(find_init, session, want, (ck)3);
	if (err != ok) return err;
	err = CALL(find, session, key, (ck)1, &found);
	CALL(find_final, session);
	return err != ok ? err : found == 1 ? ok : key_handle_invalid;
}

static ck in_session(functions *list, token_use *use, ck session) {
	ck key, err;
	use->step = "logging in to the token (is the PIN right?)";
	err = CALL(login, session, (ck)user, use->pin, use->pin_length);
	if (err != ok && err != already_logged_in) return err;
	use->step = "finding an AES key of that label in the token";
	if ((err = find_key(list, use, session, &key)) != ok) return err;
	gcm parameters = {use->iv, use->iv_length, use->iv_length * 8, use->aad, use->aad_length, 128};
	mechanism how = {aes_gcm, &parameters, sizeof parameters};
	use->step = use->decrypt ? "decrypting in the token" : "encrypting in the token";
	if ((err = CALL(use->decrypt ? decrypt_init : encrypt_init, session, &how, key)) != ok) return err;
	return CALL(use->decrypt ? decrypt : encrypt, session, use->in, use->in_length, use->out, &use->out_length);
}

static ck with_module(functions *list, token_use *use) {
	ck slot, session, err;
	use->step = "initializing the module";
	if ((err = CALL(initialize, (void *)0)) != ok) return err;
	use->step = "finding a token of that label";
	if ((err = find_slot(list, use, &slot)) == ok) {
		use->step = "opening a session";
		if ((err = CALL(open_session, slot, (ck)serial_session, (void *)0, (void *)0, &session)) == ok) {
			err = in_session(list, use, session);
			CALL(close_session, session);
		}
	}
	CALL(finalize, (void *)0);
	return err;
}

unsigned long token_run(token_use *use) {
	functions *list = 0;
	use->step = "loading the module";
	void *module = dlopen(use->module, RTLD_NOW | RTLD_LOCAL);
	if (!module) {
		snprintf(use->reason, sizeof use->reason, "%s", dlerror());
		return general_error;
	}
	ck (*get_list)(functions **) = (ck (*)(functions **))dlsym(module, "C_GetFunctionList");
	ck err = get_list ? get_list(&list) : general_error;
	if (err == ok) err = with_module(list, use);
	dlclose(module);
	return err;
}
