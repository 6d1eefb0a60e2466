// Pictures: patches, the class token, and features among the tokens. The tower itself is fp32, tokens may be bf16. Up to 256 threads a row, four
// columns a thread, no shared memory; traffic is one read and one write of what is moved.
#include "rows.cuh"

struct UnfoldPatchesArgs
{
    const float* pixels;
    float* result;
    int64 rows; // patches of all pictures
    int32 size, patch, lanes;
};

struct ClassTokenArgs
{
    const float* input;
    const float* token;
    const float* table;
    float* result;
    int64 rows; // of the result
    int32 rowsOfPicture, columns, lanes;
};

struct PictureSumArgs
{
    const float* gradient;
    float* result;
    int64 rows; // that are summed, of each picture
    int32 pictures, rowsOfPicture, columns, lanes, accumulate;
};

// The rows of each picture but the first ones, or zeros in their place and the others behind.
struct PictureRowsArgs
{
    const float* input;
    float* result;
    int64 rows; // of the result
    int32 rowsOfPicture, skip, columns, lanes;
};

struct PlacePicturesArgs
{
    const void* input;
    const float* features; // null: zeros
    const int32* places;
    void* result;
    int64 rows;
    int32 columns, lanes;
};

NL_KERNEL(256) unfold_patches(UnfoldPatchesArgs a)
{
    const float* pixels = a.pixels;
    float* result = a.result;
    int size = a.size, patch = a.patch, across = size / patch, area = patch * patch, columns = 3 * area;
    overRows(a.rows, columns, a.lanes, NL_EACH_OF_ROW {
        int64 picture = row / (across * across);
        int place = (int)(row - picture * (across * across)), down = place / across, right = place - down * across;
        for (int j = 0; j < PACK && j < left; j++)
        {
            int channel = (c + j) / area, inside = c + j - channel * area, y = inside / patch, x = inside - y * patch;
            result[row * columns + c + j] = pixels[((picture * 3 + channel) * size + down * patch + y) * size + right * patch + x];
        }
    });
}

NL_KERNEL(256) class_token(ClassTokenArgs a)
{
    const float* input = a.input;
    const float* token = a.token;
    const float* table = a.table;
    float* result = a.result;
    int columns = a.columns, rowsOfPicture = a.rowsOfPicture;
    bool whole = columns % PACK == 0 && aligned(input, token, table, result);
    overRows(a.rows, columns, a.lanes, NL_EACH_OF_ROW {
        int64 picture = row / rowsOfPicture;
        int inside = (int)(row - picture * rowsOfPicture);
        const float* from = inside == 0 ? token : input + (row - picture - 1) * columns;
        Pack v = load(from + c, left, whole), place = load(table + (int64)inside * columns + c, left, whole);
#pragma unroll
        for (int j = 0; j < PACK; j++)
            v[j] += place[j];
        store(result + row * columns + c, v, left, whole);
    });
}

NL_KERNEL(256) picture_sum(PictureSumArgs a)
{
    const float* dy = a.gradient;
    float* result = a.result;
    int columns = a.columns, pictures = a.pictures, rowsOfPicture = a.rowsOfPicture;
    bool whole = columns % PACK == 0 && aligned(dy, result), accumulate = a.accumulate != 0;
    overRows(a.rows, columns, a.lanes, NL_EACH_OF_ROW {
        Pack sum = Pack{{0.0f, 0.0f, 0.0f, 0.0f}};
        if (accumulate)
            sum = load(result + row * columns + c, left, whole);
        for (int p = 0; p < pictures; p++)
        {
            Pack d = load(dy + ((int64)p * rowsOfPicture + row) * columns + c, left, whole);
#pragma unroll
            for (int j = 0; j < PACK; j++)
                sum[j] += d[j];
        }
        store(result + row * columns + c, sum, left, whole);
    });
}

NL_KERNEL(256) picture_rows(PictureRowsArgs a)
{
    const float* input = a.input;
    float* result = a.result;
    int columns = a.columns, rowsOfPicture = a.rowsOfPicture, skip = a.skip, kept = rowsOfPicture - skip;
    bool whole = columns % PACK == 0 && aligned(input, result);
    overRows(a.rows, columns, a.lanes, NL_EACH_OF_ROW {
        int64 from = row + (row / kept + 1) * skip;
        store(result + row * columns + c, load(input + from * columns + c, left, whole), left, whole);
    });
}

NL_KERNEL(256) picture_rows_grad(PictureRowsArgs a)
{
    const float* input = a.input;
    float* result = a.result;
    int columns = a.columns, rowsOfPicture = a.rowsOfPicture, skip = a.skip;
    bool whole = columns % PACK == 0 && aligned(input, result);
    overRows(a.rows, columns, a.lanes, NL_EACH_OF_ROW {
        int64 picture = row / rowsOfPicture;
        Pack v = Pack{{0.0f, 0.0f, 0.0f, 0.0f}};
        if (row - picture * rowsOfPicture >= skip)
            v = load(input + (row - (picture + 1) * skip) * columns + c, left, whole);
        store(result + row * columns + c, v, left, whole);
    });
}

// result[t] = places[t] < 0 ? input[t] : features[places[t]]
template<typename E> NL_INLINE void placePictures(const PlacePicturesArgs& a)
{
    const E* input = (const E*)a.input;
    const float* features = a.features;
    const int32* places = a.places;
    E* result = (E*)a.result;
    int columns = a.columns;
    bool whole = columns % PACK == 0 && aligned(input, (const E*)result) && aligned(features), inPlace = input == result;
    overRows(a.rows, columns, a.lanes, NL_EACH_OF_ROW {
        int64 at = row * columns + c;
        int place = places[row];
        if (place < 0)
        {
            if (!inPlace)
                store(result + at, load(input + at, left, whole), left, whole);
            return;
        }
        Pack v = Pack{{0.0f, 0.0f, 0.0f, 0.0f}};
        if (features != nullptr)
            v = load(features + (int64)place * columns + c, left, whole);
        store(result + at, v, left, whole);
    });
}

// result[places[t]] = input[t]: no two tokens have one place.
template<typename E> NL_INLINE void takePictures(const PlacePicturesArgs& a)
{
    const E* input = (const E*)a.input;
    const int32* places = a.places;
    float* result = (float*)a.result;
    int columns = a.columns;
    bool whole = columns % PACK == 0 && aligned(input) && aligned(result);
    overRows(a.rows, columns, a.lanes, NL_EACH_OF_ROW {
        if (places[row] >= 0)
            store(result + (int64)places[row] * columns + c, load(input + row * columns + c, left, whole), left, whole);
    });
}

NL_KERNEL(256) place_pictures_f32(PlacePicturesArgs a) { placePictures<float>(a); }
NL_KERNEL(256) place_pictures_bf16(PlacePicturesArgs a) { placePictures<bf16>(a); }
NL_KERNEL(256) take_pictures_f32(PlacePicturesArgs a) { takePictures<float>(a); }
NL_KERNEL(256) take_pictures_bf16(PlacePicturesArgs a) { takePictures<bf16>(a); }
