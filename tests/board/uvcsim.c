/* A USB camera made of software, for the kernel's own drivers.
 *
 * It is a USB Video Class 1.1 device at the far end of vhci_hcd, the kernel's virtual USB host controller, and speaks USB/IP with it
 * over a socket pair (Documentation/usb/usbip_protocol.rst). usbcore and uvcvideo find, ask, start and lose it as they would a real
 * one. It streams files, and fails on command in the ways that real cameras fail.
 *
 *   uvcsim --dir DIR [--serial S] [--product P] [--port N] [--ctl FIFO] [--fps 30,15,5]
 *
 * DIR holds a folder for each format and size, named 640x480.MJPG or 320x240.YUY2 (any fourcc that UVC has); the files in it are the
 * frames, sent in the order of their names, over and over. --port 0 is USB port 1 of the first virtual bus.
 *
 * Commands, one a line, into the FIFO:
 *   unplug, plug, serial S (from the next plug on), quit
 *   stall             nothing comes any more; commands are answered
 *   freeze            the same frame again and again
 *   fps N             so slow, whatever was agreed
 *   ctlstall, ctlhang control requests are refused; are never answered
 *   epstall, proto    every transfer of video fails: -EPIPE; -EPROTO
 *   resume            ends all these
 *   trunc N, nodht N, noeof N, garbage N, empty N, short N (one byte), big N (more than it said at most), err N (its error bit):
 *                     so the next N frames; -1: until resume
 *   epstall N, proto N: so the next N transfers
 * What it does it tells on standard error. Never stop it with SIGSTOP: its callers hang in the kernel. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define VHCI "/sys/devices/platform/vhci_hcd.0/attach"

enum {
	VIDEO_IN = 0x81,      /* the endpoint that streams */
	PAYLOAD_MAX = 16384,  /* header and data of one bulk transfer */
	HEADER = 2,           /* of each payload */
	HIGH_SPEED = 3,       /* enum usb_device_speed */
	PROBE = 34,           /* bytes of the stream negotiation in UVC 1.1 */
	FORMATS_MAX = 4,
	SIZES_MAX = 8,
	RATES_MAX = 8,
};

static const char *serial = "", *product = "UVC Test Camera", *dir, *fifo;
static int port;

static void say(const char *format, ...)
{
	va_list args;
	va_start(args, format);
	fprintf(stderr, "camera %s: ", serial);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	va_end(args);
}

static uint64_t now_us(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000ull + t.tv_nsec / 1000;
}

static void put16(uint8_t *p, unsigned v)
{
	p[0] = v;
	p[1] = v >> 8;
}

static void put32(uint8_t *p, uint32_t v)
{
	put16(p, v);
	put16(p + 2, v >> 16);
}

static unsigned get16(const uint8_t *p)
{
	return p[0] | p[1] << 8;
}

static uint32_t get32(const uint8_t *p)
{
	return get16(p) | (uint32_t)get16(p + 2) << 16;
}

/* ---- what it can show: formats, sizes, frames ---- */

struct picture {
	uint8_t *data;
	size_t len;
};

struct size {
	int width, height, pictures;
	struct picture *picture;
};

struct format {
	char fourcc[5];
	int sizes;
	struct size size[SIZES_MAX];
};

static struct format formats[FORMATS_MAX];
static int format_count;
static uint32_t intervals[RATES_MAX] = { 333333, 666666, 2000000 }; /* 100 ns */
static int interval_count = 3;

static struct picture read_picture(const char *path)
{
	struct picture picture;
	struct stat status;
	int fd = open(path, O_RDONLY);
	if (fd < 0 || fstat(fd, &status))
		err(2, "%s", path);
	picture.len = status.st_size;
	picture.data = malloc(picture.len + 1);
	if (!picture.data || read(fd, picture.data, picture.len) != (ssize_t)picture.len)
		err(2, "%s", path);
	close(fd);
	return picture;
}

static int visible(const struct dirent *entry)
{
	return entry->d_name[0] != '.';
}

static void load_size(struct format *format, int width, int height, const char *folder)
{
	struct dirent **names;
	char path[1024];
	struct size *size = &format->size[format->sizes++];
	int count = scandir(folder, &names, visible, alphasort);
	if (count <= 0)
		errx(2, "no frames in %s", folder);
	*size = (struct size){ width, height, count, calloc(count, sizeof *size->picture) };
	for (int i = 0; i < count; i++) {
		snprintf(path, sizeof path, "%s/%s", folder, names[i]->d_name);
		size->picture[i] = read_picture(path);
	}
}

static void load_all(void)
{
	struct dirent **names;
	int count = scandir(dir, &names, visible, versionsort);
	if (count <= 0)
		errx(2, "nothing in %s", dir);
	for (int i = 0; i < count; i++) {
		char fourcc[5], path[512];
		int width, height, f;
		if (sscanf(names[i]->d_name, "%dx%d.%4s", &width, &height, fourcc) != 3)
			errx(2, "%s/%s: not named like 640x480.MJPG", dir, names[i]->d_name);
		for (f = 0; f < format_count && strcmp(formats[f].fourcc, fourcc); f++)
			;
		if (f == FORMATS_MAX || formats[f].sizes == SIZES_MAX)
			errx(2, "too many formats or sizes in %s", dir);
		if (f == format_count)
			strcpy(formats[format_count++].fourcc, fourcc);
		snprintf(path, sizeof path, "%s/%s", dir, names[i]->d_name);
		load_size(&formats[f], width, height, path);
	}
}

static int compressed(const struct format *format)
{
	return !strcmp(format->fourcc, "MJPG");
}

static int bits_per_pixel(const struct format *format)
{
	return !strcmp(format->fourcc, "YUY2") || !strcmp(format->fourcc, "UYVY") ? 16 : !strcmp(format->fourcc, "NV12") ? 12 : 8;
}

static uint32_t frame_bytes_max(const struct format *format, const struct size *size)
{
	uint32_t pixels = size->width * size->height;
	return compressed(format) ? pixels * 2 : pixels * bits_per_pixel(format) / 8;
}

/* ---- descriptors: what it says it is ---- */

static uint8_t config[4096];
static int config_len;

static void bytes(int count, ...)
{
	va_list args;
	va_start(args, count);
	while (count--)
		config[config_len++] = va_arg(args, int);
	va_end(args);
}

static void word(unsigned v)
{
	put16(config + config_len, v);
	config_len += 2;
}

static void dword(uint32_t v)
{
	put32(config + config_len, v);
	config_len += 4;
}

static void describe_size(int subtype, int index, const struct format *format, const struct size *size)
{
	uint32_t most = frame_bytes_max(format, size);
	bytes(5, 26 + 4 * interval_count, 0x24, subtype, index, 0);
	word(size->width);
	word(size->height);
	dword(most * 8 * 5);
	dword(most * 8 * 30);
	dword(most);
	dword(intervals[0]);
	bytes(1, interval_count);
	for (int i = 0; i < interval_count; i++)
		dword(intervals[i]);
}

static void describe_format(int index, const struct format *format)
{
	int mjpeg = compressed(format);
	if (mjpeg) {
		bytes(11, 11, 0x24, 6, index, format->sizes, 1, 1, 0, 0, 0, 0);
	} else {
		const char *f = format->fourcc;
		bytes(5, 27, 0x24, 4, index, format->sizes);
		bytes(16, f[0], f[1], f[2], f[3], 0, 0, 0x10, 0, 0x80, 0, 0, 0xaa, 0, 0x38, 0x9b, 0x71);
		bytes(6, bits_per_pixel(format), 1, 0, 0, 0, 0);
	}
	for (int i = 0; i < format->sizes; i++)
		describe_size(mjpeg ? 7 : 5, i + 1, format, &format->size[i]);
	bytes(6, 6, 0x24, 13, 1, 1, 4); /* colours as in television */
}

static void describe(void)
{
	int control, stream;
	bytes(9, 9, 2, 0, 0, 2, 1, 0, 0x80, 250);
	bytes(8, 8, 11, 0, 2, 14, 3, 0, 2);   /* two interfaces that belong together: video */
	bytes(9, 9, 4, 0, 0, 0, 14, 1, 0, 2); /* the one for controls */
	control = config_len;
	bytes(3, 13, 0x24, 1);
	word(0x0110);
	word(0);
	dword(48000000);
	bytes(2, 1, 1);
	/* Camera 1: exposure mode and time, focus by hand and automatic. Processing 2: brightness, contrast, gain, white balance, mains
	 * frequency. Output 3. */
	bytes(18, 18, 0x24, 2, 1, 0x01, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0x2a, 0x00, 0x02);
	bytes(12, 12, 0x24, 5, 2, 1, 0, 0, 2, 0x43, 0x16, 0, 0);
	bytes(9, 9, 0x24, 3, 3, 0x01, 0x01, 0, 2, 0);
	put16(config + control + 5, config_len - control);

	bytes(9, 9, 4, 1, 0, 1, 14, 2, 0, 0); /* the one for pictures */
	stream = config_len;
	bytes(4, 13 + format_count, 0x24, 1, format_count);
	word(0);
	bytes(7, VIDEO_IN, 0, 3, 0, 0, 0, 1);
	for (int i = 0; i < format_count; i++)
		bytes(1, 0);
	for (int i = 0; i < format_count; i++)
		describe_format(i + 1, &formats[i]);
	put16(config + stream + 4, config_len - stream);
	bytes(7, 7, 5, VIDEO_IN, 2, 0, 2, 0); /* bulk, 512 bytes a packet */
	put16(config + 2, config_len);
}

static int string(int index, uint8_t *answer)
{
	const char *text = index == 1 ? "Simulated" : index == 2 ? product : index == 3 ? serial : NULL;
	int len;
	if (index == 0) {
		memcpy(answer, "\x04\x03\x09\x04", 4);
		return 4;
	}
	if (!text)
		return -1;
	len = strnlen(text, 126);
	answer[0] = 2 + 2 * len;
	answer[1] = 3;
	for (int i = 0; i < len; i++)
		put16(answer + 2 + 2 * i, text[i]);
	return answer[0];
}

/* ---- state ---- */

struct transfer {
	uint32_t number, len;
	struct transfer *next;
};

static struct transfer *waiting, **last_waiting = &waiting; /* video transfers that the kernel has offered */
static struct transfer *unanswered;                         /* control requests that never get an answer */
static int link_fd = -1;
static int pulled; /* by command, not to come back by itself */
static int configured, streaming;
static uint8_t probe[PROBE], commit[PROBE];
static uint64_t next_frame_us;
static unsigned frame_number;

static struct {
	int stall, freeze, fps, ctlstall, ctlhang;                     /* until resume */
	int trunc, nodht, noeof, garbage, empty, tiny, big, error_bit; /* frames to go */
	int transfers, transfer_error;                                 /* transfers to go, and how they fail */
} fault;

static struct {
	uint8_t *data;
	size_t len, sent;
	int active, toggle, error_bit, end_mark;
} frame;

static const struct format *format_now(void)
{
	return &formats[commit[2] - 1];
}

static const struct size *size_now(void)
{
	return &format_now()->size[commit[3] - 1];
}

static void stop_streaming(const char *why)
{
	if (streaming)
		say("stream stopped (%s)", why);
	streaming = frame.active = 0;
}

static void start_streaming(void)
{
	say("stream started: %s %dx%d, a frame every %u us", format_now()->fourcc, size_now()->width, size_now()->height,
	    get32(commit + 4) / 10);
	streaming = 1;
	frame.active = 0;
	next_frame_us = now_us() + 20000;
}

/* Fills in what it offers: format and size if it has them, the nearest rate. */
static void negotiate(uint8_t *p, int format, int size, uint32_t interval)
{
	uint32_t best = intervals[0];
	if (format < 1 || format > format_count)
		format = 1;
	if (size < 1 || size > formats[format - 1].sizes)
		size = 1;
	for (int i = 0; i < interval_count; i++)
		if (llabs((long long)intervals[i] - interval) < llabs((long long)best - interval))
			best = intervals[i];
	memset(p, 0, PROBE);
	p[0] = 1;
	p[2] = format;
	p[3] = size;
	put32(p + 4, best);
	put32(p + 18, frame_bytes_max(&formats[format - 1], &formats[format - 1].size[size - 1]));
	put32(p + 22, PAYLOAD_MAX);
	put32(p + 26, 48000000);
	p[30] = 3;
	p[31] = p[32] = p[33] = 1;
}

/* ---- control requests: each returns the length of its answer, or -1 to refuse ---- */

enum { SET_CUR = 0x01, GET_CUR = 0x81, GET_MIN, GET_MAX, GET_RES, GET_LEN, GET_INFO, GET_DEF };

static struct control {
	int unit, selector, len, min, max, step, initial, now;
	const char *name;
} controls[] = {
	{ 1, 2, 1, 0, 0, 9, 8, 8, "exposure mode" }, /* 1 by hand, 8 automatic; "step" is the set of modes */
	{ 1, 4, 4, 1, 5000, 1, 156, 156, "exposure time" },
	{ 1, 6, 2, 0, 250, 5, 0, 0, "focus" },
	{ 1, 8, 1, 0, 1, 1, 1, 1, "focus mode" },
	{ 2, 2, 2, 0, 255, 1, 128, 128, "brightness" },
	{ 2, 3, 2, 0, 255, 1, 32, 32, "contrast" },
	{ 2, 4, 2, 0, 100, 1, 0, 0, "gain" },
	{ 2, 5, 1, 0, 2, 1, 2, 2, "mains frequency" },
	{ 2, 10, 2, 2800, 6500, 10, 4000, 4000, "white balance" },
	{ 2, 11, 1, 0, 1, 1, 1, 1, "white balance mode" },
};
static uint8_t last_error; /* what VC_REQUEST_ERROR_CODE tells next */

static int refuse(int code)
{
	last_error = code;
	return -1;
}

static int stream_request(int request, int selector, const uint8_t *in, uint32_t in_len, uint8_t *answer)
{
	uint8_t asked[PROBE] = { 0 };
	uint8_t *state = selector == 1 ? probe : commit;
	if (selector != 1 && selector != 2)
		return -1;
	switch (request) {
	case SET_CUR:
		memcpy(asked, in, in_len < PROBE ? in_len : PROBE);
		negotiate(state, asked[2], asked[3], get32(asked + 4));
		if (state == commit)
			start_streaming();
		return 0;
	case GET_CUR:
		memcpy(answer, state, PROBE);
		return PROBE;
	case GET_MIN:
	case GET_RES:
		negotiate(answer, probe[2], probe[3], intervals[0]);
		return PROBE;
	case GET_MAX:
		negotiate(answer, probe[2], probe[3], intervals[interval_count - 1]);
		return PROBE;
	case GET_DEF:
		negotiate(answer, 1, 1, intervals[0]);
		return PROBE;
	case GET_LEN:
		put16(answer, PROBE);
		return 2;
	case GET_INFO:
		answer[0] = 3;
		return 1;
	}
	return -1;
}

static int set_control(struct control *control, const uint8_t *in, uint32_t in_len)
{
	int value = 0;
	memcpy(&value, in, in_len < 4 ? in_len : 4); /* little endian, as all boards this runs on */
	int mode = control->max == 0;
	if (mode ? !(value & control->step) : value < control->min || value > control->max)
		return refuse(4); /* out of range */
	control->now = value;
	say("%s set to %d", control->name, value);
	return 0;
}

static int unit_request(int request, int unit, int selector, const uint8_t *in, uint32_t in_len, uint8_t *answer)
{
	for (unsigned i = 0; i < sizeof controls / sizeof *controls; i++) {
		struct control *c = &controls[i];
		if (c->unit != unit || c->selector != selector)
			continue;
		int value = request == GET_CUR ? c->now : request == GET_MIN ? c->min : request == GET_MAX ? c->max : request == GET_RES ? c->step : c->initial;
		switch (request) {
		case SET_CUR:
			return set_control(c, in, in_len);
		case GET_CUR:
		case GET_MIN:
		case GET_MAX:
		case GET_RES:
		case GET_DEF:
			memcpy(answer, &value, 4);
			return c->len;
		case GET_LEN:
			put16(answer, c->len);
			return 2;
		case GET_INFO:
			answer[0] = 3;
			return 1;
		}
	}
	return refuse(6); /* unknown control */
}

static int class_request(const uint8_t *setup, const uint8_t *in, uint32_t in_len, uint8_t *answer)
{
	int request = setup[1], selector = setup[3], interface = setup[4], unit = setup[5];
	if (fault.ctlstall)
		return refuse(6);
	if (interface == 1)
		return stream_request(request, selector, in, in_len, answer);
	if (unit)
		return unit_request(request, unit, selector, in, in_len, answer);
	if (selector != 2) /* of the interface itself there is only the last error */
		return -1;
	answer[0] = request == GET_INFO ? 1 : last_error;
	return 1;
}

static int descriptor(const uint8_t *setup, uint8_t *answer)
{
	uint8_t device[18] = { 18, 1, 0, 2, 0xef, 2, 1, 64, 0x6b, 0x1d, 0x02, 0x01, 0x10, 1, 1, 2, *serial ? 3 : 0, 1 };
	uint8_t qualifier[10] = { 10, 6, 0, 2, 0xef, 2, 1, 64, 1, 0 };
	switch (setup[3]) {
	case 1:
		memcpy(answer, device, sizeof device);
		return sizeof device;
	case 2:
		memcpy(answer, config, config_len);
		return config_len;
	case 3:
		return string(setup[2], answer);
	case 6:
		memcpy(answer, qualifier, sizeof qualifier);
		return sizeof qualifier;
	}
	return -1;
}

static int request(const uint8_t *setup, const uint8_t *in, uint32_t in_len, uint8_t *answer)
{
	int interface = get16(setup + 4);
	if ((setup[0] & 0x60) == 0x20)
		return class_request(setup, in, in_len, answer);
	if (setup[0] & 0x60)
		return -1;
	switch (setup[1]) {
	case 0: /* GET_STATUS */
		put16(answer, 0);
		return 2;
	case 1: /* CLEAR_FEATURE: how uvcvideo ends a stream */
		if ((setup[0] & 31) == 2 && interface == VIDEO_IN)
			stop_streaming("endpoint cleared");
		return 0;
	case 3: /* SET_FEATURE, SET_ADDRESS */
	case 5:
		return 0;
	case 6:
		return descriptor(setup, answer);
	case 8: /* GET_CONFIGURATION */
		answer[0] = configured;
		return 1;
	case 9:
		configured = setup[2];
		stop_streaming("configured");
		return 0;
	case 10: /* GET_INTERFACE: there is only one setting of each */
		answer[0] = 0;
		return 1;
	case 11:
		if (interface == 1)
			stop_streaming("interface set");
		return 0;
	}
	return -1;
}

/* ---- USB/IP: 48 bytes of header, big endian, then data ---- */

static int read_all(void *to, size_t len)
{
	for (size_t done = 0; done < len;) {
		ssize_t n = read(link_fd, (uint8_t *)to + done, len - done);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return -1;
		done += n;
	}
	return 0;
}

static int write_all(const void *from, size_t len)
{
	for (size_t done = 0; done < len;) {
		ssize_t n = write(link_fd, (const uint8_t *)from + done, len - done);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return -1;
		done += n;
	}
	return 0;
}

enum { SUBMIT = 1, UNLINK, SUBMITTED, UNLINKED };

static int reply(uint32_t command, uint32_t number, int status, const uint8_t *data, uint32_t len, uint32_t actual)
{
	static uint8_t message[48 + 65536];
	uint32_t head[12] = { htonl(command), htonl(number), 0, 0, 0, htonl(status), htonl(actual) };
	memcpy(message, head, 48);
	if (len)
		memcpy(message + 48, data, len);
	return write_all(message, 48 + len);
}

static int forget(struct transfer **list, uint32_t number)
{
	for (struct transfer **at = list; *at; at = &(*at)->next) {
		struct transfer *found = *at;
		if (found->number != number)
			continue;
		if (last_waiting == &found->next)
			last_waiting = at;
		*at = found->next;
		free(found);
		return 1;
	}
	return 0;
}

static void forget_all(struct transfer **list)
{
	while (*list)
		forget(list, (*list)->number);
}

static struct transfer *transfer(uint32_t number, uint32_t len)
{
	struct transfer *t = calloc(1, sizeof *t);
	if (!t)
		err(1, "no memory");
	t->number = number;
	t->len = len;
	return t;
}

/* One message of the kernel. */
static int receive(void)
{
	static uint8_t in[65536], answer[65536];
	uint32_t head[12];
	if (read_all(head, sizeof head))
		return -1;
	uint32_t number = ntohl(head[1]), into = ntohl(head[3]), endpoint = ntohl(head[4]), len = ntohl(head[6]);
	if (ntohl(head[0]) == UNLINK) {
		uint32_t victim = ntohl(head[5]);
		int found = forget(&waiting, victim) || forget(&unanswered, victim);
		return reply(UNLINKED, number, found ? -ECONNRESET : 0, NULL, 0, 0);
	}
	if (ntohl(head[0]) != SUBMIT || (!into && len > sizeof in))
		return -1;
	if (!into && len && read_all(in, len))
		return -1;
	if (endpoint) {
		*last_waiting = transfer(number, len);
		last_waiting = &(*last_waiting)->next;
		return 0;
	}
	if (fault.ctlhang) {
		struct transfer *t = transfer(number, 0);
		t->next = unanswered;
		unanswered = t;
		return 0;
	}
	int n = request((uint8_t *)&head[10], in, into ? 0 : len, answer);
	if (n < 0)
		return reply(SUBMITTED, number, -EPIPE, NULL, 0, 0);
	if (!into)
		return reply(SUBMITTED, number, 0, NULL, 0, len);
	if ((uint32_t)n > len)
		n = len;
	return reply(SUBMITTED, number, 0, answer, n, n);
}

/* ---- pictures to payloads ---- */

/* Takes one off a fault's count. */
static int strikes(int *count)
{
	if (*count > 0)
		(*count)--;
	else if (!*count)
		return 0;
	return 1;
}

/* The picture without its Huffman tables, as cheap cameras send it. */
static size_t without_tables(uint8_t *to, const struct picture *picture)
{
	const uint8_t *p = picture->data;
	size_t len = 2, at = 2;
	memcpy(to, p, 2);
	while (at + 4 <= picture->len && p[at + 1] != 0xda) {
		size_t segment = 2 + (p[at + 2] << 8 | p[at + 3]);
		if (p[at + 1] != 0xc4) {
			memcpy(to + len, p + at, segment);
			len += segment;
		}
		at += segment;
	}
	memcpy(to + len, p + at, picture->len - at);
	return len + picture->len - at;
}

static void begin_frame(void)
{
	const struct size *size = size_now();
	size_t most = frame_bytes_max(format_now(), size);
	const struct picture *picture = &size->picture[frame_number % size->pictures];
	if (!fault.freeze)
		frame_number++;
	free(frame.data);
	frame.data = malloc(picture->len + 2 * most);
	if (!frame.data)
		err(1, "no memory");
	if (compressed(format_now()) && strikes(&fault.nodht)) {
		frame.len = without_tables(frame.data, picture);
	} else {
		memcpy(frame.data, picture->data, picture->len);
		frame.len = picture->len;
	}
	if (strikes(&fault.trunc))
		frame.len /= 2;
	if (strikes(&fault.tiny))
		frame.len = 1;
	if (strikes(&fault.empty))
		frame.len = 0;
	if (strikes(&fault.garbage))
		for (size_t i = 0; i < frame.len; i++)
			frame.data[i] = rand();
	if (strikes(&fault.big)) {
		memset(frame.data + frame.len, 0, most);
		frame.len += most;
	}
	frame.error_bit = strikes(&fault.error_bit) ? 0x40 : 0;
	frame.end_mark = strikes(&fault.noeof) ? 0 : 0x02;
	frame.sent = 0;
	frame.active = 1;
}

/* One payload: its header and the next piece of the frame. */
static uint32_t payload(uint8_t *to, uint32_t room)
{
	size_t piece = frame.len - frame.sent;
	if (piece > room - HEADER)
		piece = room - HEADER;
	to[0] = HEADER;
	to[1] = 0x80 | frame.toggle | frame.error_bit;
	memcpy(to + HEADER, frame.data + frame.sent, piece);
	frame.sent += piece;
	if (frame.sent >= frame.len) {
		to[1] |= frame.end_mark;
		frame.active = 0;
		frame.toggle ^= 1;
	}
	return HEADER + piece;
}

static struct transfer take_waiting(void)
{
	struct transfer *t = waiting, copy = *t;
	waiting = t->next;
	if (!waiting)
		last_waiting = &waiting;
	free(t);
	return copy;
}

/* Fills the transfers that the kernel has offered with what is due. */
static int pump(void)
{
	static uint8_t data[PAYLOAD_MAX];
	uint64_t now = now_us(), period = fault.fps ? 1000000u / fault.fps : get32(commit + 4) / 10;
	while (waiting && strikes(&fault.transfers)) {
		if (reply(SUBMITTED, take_waiting().number, fault.transfer_error, NULL, 0, 0))
			return -1;
		if (fault.transfers < 0)
			usleep(2000); /* the kernel offers the next one at once, for ever */
	}
	if (!streaming || fault.stall)
		return 0;
	if (now >= next_frame_us) {
		if (!frame.active)
			begin_frame();
		next_frame_us += period;
		if (next_frame_us + 2 * period < now)
			next_frame_us = now + period;
	}
	while (frame.active && waiting) {
		struct transfer t = take_waiting();
		uint32_t len = payload(data, t.len < PAYLOAD_MAX ? t.len : PAYLOAD_MAX);
		if (reply(SUBMITTED, t.number, 0, data, len, len))
			return -1;
	}
	return 0;
}

/* ---- plug and commands ---- */

static void unplug(const char *why)
{
	if (link_fd < 0)
		return;
	stop_streaming(why);
	shutdown(link_fd, SHUT_RDWR);
	close(link_fd);
	link_fd = -1;
	forget_all(&waiting);
	forget_all(&unanswered);
	configured = 0;
	say("unplugged (%s)", why);
}

static int attach(int fd)
{
	char text[64];
	int len = snprintf(text, sizeof text, "%d %d %d %d", port, fd, 65537 + port, HIGH_SPEED);
	int file = open(VHCI, O_WRONLY);
	if (file < 0)
		err(1, VHCI " (is the module vhci-hcd loaded?)");
	int done = write(file, text, len) == len;
	close(file);
	return done ? 0 : -1;
}

static void plug(void)
{
	int ends[2], buffer = 1 << 20;
	if (link_fd >= 0 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends))
		return;
	setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &buffer, sizeof buffer);
	/* The port is busy until the kernel has let go of what was plugged there before. */
	for (int i = 0; i < 100 && attach(ends[1]); i++)
		usleep(100000);
	close(ends[1]);
	link_fd = ends[0];
	say("plugged into port %d", port);
}

static void resume(void)
{
	memset(&fault, 0, sizeof fault);
	next_frame_us = now_us();
}

static void command(char *line)
{
	static char new_serial[64];
	static const struct {
		const char *word;
		int *value;
	} counts[] = {
		{ "stall", &fault.stall }, { "freeze", &fault.freeze }, { "fps", &fault.fps }, { "ctlstall", &fault.ctlstall },
		{ "ctlhang", &fault.ctlhang }, { "trunc", &fault.trunc }, { "nodht", &fault.nodht }, { "noeof", &fault.noeof },
		{ "garbage", &fault.garbage }, { "empty", &fault.empty }, { "short", &fault.tiny }, { "big", &fault.big },
		{ "err", &fault.error_bit }, { "epstall", &fault.transfers }, { "proto", &fault.transfers },
	};
	char word[32] = "";
	int count = -1;
	if (sscanf(line, "%31s %d", word, &count) < 1)
		return;
	say("told: %s", line);
	if (!strcmp(word, "unplug")) {
		pulled = 1;
		unplug("command");
	} else if (!strcmp(word, "plug")) {
		pulled = 0;
		plug();
	} else if (!strcmp(word, "quit")) {
		unplug("quit");
		exit(0);
	} else if (!strcmp(word, "resume")) {
		resume();
	} else if (!strcmp(word, "serial")) {
		if (sscanf(line, "%*s %63s", new_serial) == 1)
			serial = new_serial;
	} else {
		for (unsigned i = 0; i < sizeof counts / sizeof *counts; i++)
			if (!strcmp(word, counts[i].word)) {
				*counts[i].value = count;
				fault.transfer_error = !strcmp(word, "proto") ? -EPROTO : -EPIPE;
				return;
			}
		say("no such command");
	}
}

static void read_commands(int fd)
{
	static char line[256];
	static unsigned len;
	char c;
	while (read(fd, &c, 1) == 1) {
		if (c == '\n') {
			line[len] = 0;
			len = 0;
			command(line);
		} else if (len < sizeof line - 1) {
			line[len++] = c;
		}
	}
}

static int patience_ms(void)
{
	if (fault.transfers && waiting)
		return 2;
	if (!streaming || fault.stall)
		return 1000;
	int64_t left_us = (int64_t)next_frame_us - (int64_t)now_us();
	return left_us <= 0 ? 0 : left_us > 1000000 ? 1000 : (left_us + 999) / 1000;
}

static void set_rates(char *list)
{
	interval_count = 0;
	for (char *rate = strtok(list, ","); rate && interval_count < RATES_MAX; rate = strtok(NULL, ","))
		intervals[interval_count++] = 10000000 / (atoi(rate) > 0 ? atoi(rate) : 1);
}

int main(int argc, char **argv)
{
	int commands = -1;
	for (int i = 1; i + 1 < argc; i += 2) {
		char *value = argv[i + 1];
		if (!strcmp(argv[i], "--dir"))
			dir = value;
		else if (!strcmp(argv[i], "--serial"))
			serial = value;
		else if (!strcmp(argv[i], "--product"))
			product = value;
		else if (!strcmp(argv[i], "--port"))
			port = atoi(value);
		else if (!strcmp(argv[i], "--ctl"))
			fifo = value;
		else if (!strcmp(argv[i], "--fps"))
			set_rates(value);
		else
			errx(2, "unknown option %s: see the head of uvcsim.c", argv[i]);
	}
	if (!dir)
		errx(2, "--dir is missing: see the head of uvcsim.c");
	signal(SIGPIPE, SIG_IGN);
	setvbuf(stderr, NULL, _IOLBF, 0);
	load_all();
	describe();
	negotiate(probe, 1, 1, intervals[0]);
	memcpy(commit, probe, PROBE);
	if (fifo) {
		mkfifo(fifo, 0600);
		commands = open(fifo, O_RDWR | O_NONBLOCK);
		if (commands < 0)
			err(1, "%s", fifo);
	}
	plug();
	for (;;) {
		struct pollfd fds[2] = { { commands, POLLIN, 0 }, { link_fd, POLLIN, 0 } };
		poll(fds, 2, patience_ms());
		if (fds[0].revents & POLLIN)
			read_commands(commands);
		if (link_fd >= 0 && link_fd == fds[1].fd && fds[1].revents && receive())
			unplug("the kernel let go");
		if (link_fd >= 0 && pump())
			unplug("the kernel let go");
		/* A port that was detached from the other side is a camera that lost its power for a moment. */
		if (link_fd < 0 && !pulled)
			plug();
	}
}
