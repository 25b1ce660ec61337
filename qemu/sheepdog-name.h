/* sheepdog-name.h - what names a volume for QEMU: image names, options, the list of gateways. */
#ifndef SHEEPDOG_NAME_H
#define SHEEPDOG_NAME_H

/* What an image name and options say. */
struct sheepdog_target {
	char *vdi;
	char *host, *port; /* as given, or NULL */
	char *path;	   /* unix socket, or NULL */
	char *extra;	   /* option "gateways", or NULL */
	char *gateways;	   /* the list for the library */
};

/* Turn an image name, with its protocol in front, into options (the .bdrv_parse_filename of the
 * driver). */
void sheepdog_parse_filename(const char *filename, QDict *options, Error **errp);
/* Take the driver's options out of @options; what is not supported is refused here.  False: @errp
 * is set and @t is empty. */
bool sheepdog_target_init(struct sheepdog_target *t, QDict *options, Error **errp);
void sheepdog_target_done(struct sheepdog_target *t);

#endif
