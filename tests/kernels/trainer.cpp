// SPDX-License-Identifier: MPL-2.0
//
// The trainer's kernels under the sanitizers, in memory that ends where it should: products against their chains, and
// every kernel that works element by element against its formula. tests/kernels_trainer.rs states all of their arithmetic.
#include "../../kernels/adamw.cu"
#include "../../kernels/activate.cu"
#include "../../kernels/column_sum.cu"
#include "../../kernels/cross_entropy.cu"
#include "../../kernels/loss_scale.cu"
#include "../../kernels/pick.cu"
#include "../../kernels/product.cu"
#include "../../kernels/sgd.cu"

#include "cases.h"

#include <cmath>

static std::vector<float> drawn(u64 count, u32 state) {
    std::vector<float> values(count);
    for (float& value : values) {
        state = state * 1664525u + 1013904223u;
        value = (float)(i32)state * 0x1p-31f;
    }
    return values;
}

// Two tiles and two depths, so that a tile is loaded again while others might still read it.
CASE(products_are_chains) {
    const u64 rows = 9, inner = 40, columns = 70;
    const std::vector<float> left = drawn(rows * inner, 1), right = drawn(inner * columns, 2);
    for (const u32 threads : {COSTLY ? 16u : 64u, 5u}) {
        for (const bool turned : {false, true}) {
            std::vector<float> to(rows * columns);
            Product args{};
            args.left = left.data();
            args.right = right.data();
            args.to = to.data();
            args.rows = rows;
            args.columns = columns;
            args.inner = inner;
            args.left_row = turned ? 1 : inner;
            args.left_column = turned ? rows : 1;
            args.right_row = turned ? 1 : columns;
            args.right_column = turned ? inner : 1;
            EXPECT(run({"product_f32", &args, 1, threads, 0}).ended == host::Ended::WELL);
            for (u64 i = 0; i < rows; ++i) {
                for (u64 j = 0; j < columns; ++j) {
                    float sum = 0;
                    for (u64 k = 0; k < inner; ++k)
                        sum = std::fma(left[i * args.left_row + k * args.left_column],
                                       right[k * args.right_row + j * args.right_column], sum);
                    EXPECT(to[i * columns + j] == sum);
                }
            }
        }
    }
}

CASE(elements_stay_within_their_buffers) {
    const u32 threads = COSTLY ? 8 : 64;
    for (const u64 count : {1, 7, 8, 45}) {
        std::vector<float> weights = drawn(count, 3), moments(count), squares(count);
        const std::vector<float> gradients = drawn(count, 4), before = weights;
        std::vector<u16> copy(count);
        Scaling scaling{2.0f, 0, 0, 0};
        Sgd sgd{weights.data(), moments.data(), gradients.data(), copy.data(), &scaling, count, 0.5f, 0.0f, COPY_BF16, 0};
        EXPECT(run({"sgd_f32", &sgd, 2, threads, 0}).ended == host::Ended::WELL);
        for (u64 i = 0; i < count; ++i) EXPECT(weights[i] == before[i] - 0.5f * (gradients[i] / 2.0f));

        AdamWStep step{0.5, 0.5, 1.0f, 1.0f};
        AdamW adamw{weights.data(), moments.data(), squares.data(), gradients.data(), copy.data(), &step, &scaling, count,
                    0.0f, 0.0f, 0.0f, 0.0f, 1.0f, 1.0f, COPY_F16, 0};
        const std::vector<float> stays = weights;
        EXPECT(run({"adamw_f32", &adamw, 2, threads, 0}).ended == host::Ended::WELL);
        EXPECT(weights == stays);

        FindOverflow find{gradients.data(), &scaling, count};
        EXPECT(run({"find_overflow_f32", &find, 2, threads, 0}).ended == host::Ended::WELL);
        EXPECT(scaling.overflow == 0);

        std::vector<float> to(count);
        Activate forward{weights.data(), gradients.data(), to.data(), count, count, RECTIFIER, 0};
        EXPECT(run({"activate_f32", &forward, 2, threads, 0}).ended == host::Ended::WELL);
        for (u64 i = 0; i < count; ++i) EXPECT(to[i] == std::fmax(gradients[i] + weights[i], 0.0f));
        std::vector<float> back = gradients;
        ColumnSum columns{back.data(), to.data(), weights.data(), 1, count, 0, 0};
        EXPECT(run({"column_sum_f32", &columns, 2, threads, 0}).ended == host::Ended::WELL);
        for (u64 i = 0; i < count; ++i) EXPECT(back[i] == (to[i] > 0 ? gradients[i] : 0.0f) && weights[i] == back[i]);
    }
}

CASE(rows_and_columns_stay_within_their_buffers) {
    const u64 rows = 5, classes = 3;
    const std::vector<float> logits = drawn(rows * classes, 5);
    const std::vector<u32> labels = {0, 2, 1, 7, 2};
    std::vector<float> losses(rows), gradient(rows * classes), sums(classes);
    CrossEntropy loss{logits.data(), labels.data(), losses.data(), nullptr, gradient.data(), rows, classes, 1.0f, 0};
    EXPECT(run({"cross_entropy_f32", &loss, 2, 4, 0}).ended == host::Ended::WELL);
    for (u64 row = 0; row < rows; ++row) {
        // The softmax of a row sums to one, and where there is a class of that label, one is subtracted.
        const bool is_none = labels[row] >= classes;
        const float sum = gradient[row * 3] + gradient[row * 3 + 1] + gradient[row * 3 + 2];
        EXPECT(std::fabs(sum - (is_none ? 1.0f : 0.0f)) < 1e-6f);
        EXPECT(std::isnan(losses[row]) == is_none);
    }
    const std::vector<u32> order = {4, 0, 4};
    std::vector<float> picked(order.size() * classes);
    std::vector<u32> picked_labels(order.size());
    Pick pick{logits.data(), labels.data(), order.data(), picked.data(), picked_labels.data(), order.size(), classes * 4};
    EXPECT(run({"pick", &pick, 2, 4, 0}).ended == host::Ended::WELL);
    for (u64 i = 0; i < picked.size(); ++i) EXPECT(picked[i] == logits[order[i / classes] * classes + i % classes]);
    for (u64 i = 0; i < order.size(); ++i) EXPECT(picked_labels[i] == labels[order[i]]);
    ColumnSum columns{gradient.data(), nullptr, sums.data(), rows, classes, 0, 0};
    EXPECT(run({"column_sum_f32", &columns, 2, 4, 0}).ended == host::Ended::WELL);
    // Each row of the gradient sums to zero, but the one whose label is no class.
    EXPECT(std::fabs(sums[0] + sums[1] + sums[2] - 1.0f) < 1e-5f);
}

// Before their one rounding to a float, exponential and logarithm are off by less than 2^-44 of themselves; the library's
// in double by far less. So they are off by half a unit of a float, and a little.
CASE(exponential_and_logarithm_round_once) {
    const auto near = [](float got, double right) {
        int exponent;
        std::frexp(right, &exponent);
        const double unit = std::ldexp(1.0, (exponent < -125 ? -125 : exponent) - 24);
        return std::fabs((double)got - right) <= unit * (0.5 + 0x1p-19);
    };
    for (u32 bits = 0; bits < 0x42b20000u; bits += COSTLY ? 1000003 : 10007) {
        const float x = float_of_bits(bits);
        if (x <= 88.7f) EXPECT(near(exponential(x), std::exp((double)x)));
        EXPECT(near(exponential(-x), std::exp(-(double)x)));
    }
    for (float x = 88.0f; x < 110.0f; x += 0.01f) EXPECT(near(exponential(-x), std::exp(-(double)x)));
    for (u32 bits = 0x3f800000u; bits < 0x7f800000u; bits += COSTLY ? 1000003 : 10007)
        EXPECT(near(logarithm(float_of_bits(bits)), std::log((double)float_of_bits(bits))));
    EXPECT(exponential(0.0f) == 1.0f && exponential(-INFINITY) == 0.0f && exponential(100.0f) == INFINITY);
    EXPECT(logarithm(1.0f) == 0.0f && logarithm(INFINITY) == INFINITY);
    EXPECT(std::isnan(exponential(NAN)) && std::isnan(logarithm(NAN)));
}
