CREATE DATABASE nightshard;
