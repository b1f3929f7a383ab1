/* How many threads OpenMP starts, and how many arenas glibc's malloc gives to sixteen of them. */
#include <malloc.h>
#include <omp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { THREADS = 16 };
static pthread_barrier_t all;

static void *take(void *unused) {
    void *volatile some = malloc(64);
    pthread_barrier_wait(&all); /* Nobody gives an arena back before the last one has taken his. */
    pthread_barrier_wait(&all);
    free(some);
    return unused;
}

static int arenas(void) {
    pthread_t threads[THREADS];
    char *text = NULL;
    size_t length = 0;
    int count = 0;
    pthread_barrier_init(&all, NULL, THREADS + 1);
    for (int i = 0; i < THREADS; i++)
        if (pthread_create(&threads[i], NULL, take, NULL) != 0)
            exit(1);
    pthread_barrier_wait(&all);
    FILE *stream = open_memstream(&text, &length);
    if (stream == NULL || malloc_info(0, stream) != 0 || fclose(stream) != 0)
        exit(1);
    for (const char *at = text; (at = strstr(at, "<heap nr=")) != NULL; at++)
        count++;
    pthread_barrier_wait(&all);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    return count;
}

int main(void) {
    int team = 0;
#pragma omp parallel
#pragma omp single
    team = omp_get_num_threads();
    printf("max_threads %d\n", omp_get_max_threads());
    printf("team %d\n", team);
    printf("arenas %d\n", arenas());
    return 0;
}
