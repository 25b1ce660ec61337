/* shim.c - preloaded into programs; loads the block driver into those that are QEMU.
 *
 *  H1  In a program that is not QEMU it does nothing at all: no output, no file opened, no library
 *      loaded.  QEMU is a program that itself exports register_module_init() and bdrv_register().
 *  H2  A QEMU outside the tested range gets a message on stderr and goes on without the driver.
 *      The range is all of 7.2.x, so that a security update of the distribution stops no guest;
 *      7.2.50 and above are what was to become 8.0.
 *  H3  No symbol of QEMU is referenced: a direct reference would make every other program fail.
 *
 * The version is read from the program's own constants in memory: "QEMU v" and the version (the
 * creator field of VHDX images, part of every block layer), else "version " and the version (the
 * text of --version).  The driver lies in the shim's directory; its constructor registers it with
 * QEMU (block_init), before main() runs.
 */
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <link.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>

#define DRIVER		"sheepdog-block.so"
#define RANGE_MAJOR	7
#define RANGE_MINOR	2
#define RANGE_MICRO_MAX 49

struct version {
	unsigned major, minor, micro;
};

static const char *parse_number(const char *p, const char *end, unsigned *ret)
{
	unsigned n = 0, digits = 0;

	while (p < end && *p >= '0' && *p <= '9' && digits < 4) {
		n = n * 10 + (unsigned)(*p++ - '0');
		digits++;
	}
	*ret = n;
	return digits ? p : NULL;
}

/* "X.Y.Z" at @p? */
static bool parse_version(const char *p, const char *end, struct version *v)
{
	p = parse_number(p, end, &v->major);
	if (!p || p >= end || *p++ != '.')
		return false;
	p = parse_number(p, end, &v->minor);
	if (!p || p >= end || *p++ != '.')
		return false;
	return parse_number(p, end, &v->micro) != NULL;
}

/* Look for @prefix and a version behind it in the constant segments of an object. */
static bool find_version(const struct dl_phdr_info *info, const char *prefix, struct version *v)
{
	size_t n = strlen(prefix);

	for (int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *ph = &info->dlpi_phdr[i];
		const char *p, *end;
		if (ph->p_type != PT_LOAD || !(ph->p_flags & PF_R) || ph->p_flags & PF_W)
			continue;
		p = (const char *)(info->dlpi_addr + ph->p_vaddr);
		end = p + ph->p_filesz;
		while ((p = memmem(p, (size_t)(end - p), prefix, n))) {
			p += n;
			if (parse_version(p, end, v))
				return true;
		}
	}
	return false;
}

/* dl_iterate_phdr() begins with the main program; nothing else is looked at. */
static int program_version(struct dl_phdr_info *info, size_t size, void *arg)
{
	(void)size;
	return find_version(info, "QEMU v", arg) || find_version(info, "version ", arg) ? 1 : -1;
}

/* Is @symbol there, and of the main program itself?  A library that has it makes no QEMU. */
static bool program_exports(const char *symbol)
{
	void *p = dlsym(RTLD_DEFAULT, symbol);
	Dl_info of, program;

	return p && dladdr(p, &of) && dladdr((void *)getauxval(AT_ENTRY), &program) &&
	       of.dli_fbase == program.dli_fbase;
}

static void load_driver(void)
{
	char path[PATH_MAX];
	Dl_info self;
	const char *slash;
	int n;

	if (!dladdr((void *)&load_driver, &self) || !self.dli_fname ||
	    !(slash = strrchr(self.dli_fname, '/')))
		return;
	n = snprintf(path, sizeof(path), "%.*s/" DRIVER, (int)(slash - self.dli_fname),
		     self.dli_fname);
	if (n >= (int)sizeof(path))
		return;
	if (!dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE))
		fprintf(stderr, "sheepdog: cannot load the block driver: %s\n", dlerror());
}

static void __attribute__((constructor)) sheepdog_shim(void)
{
	struct version v = {0};
	int saved = errno;

	if (program_exports("register_module_init") && program_exports("bdrv_register")) {
		if (dl_iterate_phdr(program_version, &v) < 0)
			fprintf(stderr,
				"sheepdog: cannot tell the version of %s: the sheepdog block "
				"driver is not loaded\n",
				program_invocation_short_name);
		else if (v.major != RANGE_MAJOR || v.minor != RANGE_MINOR ||
			 v.micro > RANGE_MICRO_MAX)
			fprintf(stderr,
				"sheepdog: %s is QEMU %u.%u.%u; the sheepdog block driver is made "
				"for and tested with %d.%d.x: not loaded\n",
				program_invocation_short_name, v.major, v.minor, v.micro,
				RANGE_MAJOR, RANGE_MINOR);
		else
			load_driver();
	}
	errno = saved;
}
